"""From received bytes to queue/: the check of an upload, and its admission.

upload is one upload, incoming what is kept of those that were cut, quota what each contributor may have; file_writer
writes them to the disk, by disk_calls. live_check has an upload judged while it comes: judge_pool keeps the judges,
judge_server is their parent in the jail, judge_handle the talk with one, judge looks into the file, program at what the
job runs in it, verdict is what it says. base_programs asks whether the machine's root has what that needs.
check_threads are those that wait for verdicts. admission is the one way into queue/. deb_changes is for dput and
dupload: of a Debian source source_upload makes a job, control_files has its description and signature looked at,
control_reader reads that.

Only judge and control_reader look into an upload. Nothing here speaks FTP.
"""
