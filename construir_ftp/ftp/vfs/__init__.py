"""What a client sees: directories and files that are partly made up.

view maps paths, absence says why one isn't there, queue_dir is /queue as its contributor sees it, virtual_files are
/status.json, /README.txt and the like (readme), listing and listing_lines make listings in pieces, readahead those
that are wanted soon.
"""
