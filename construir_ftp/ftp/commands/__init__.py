"""What a client can say: a module for each kind of command.

listing is LIST, NLST, MLSD and STAT; files is RNFR, RNTO, DELE, SIZE, MDTM and MFMT; store is STOR, APPE and ALLO;
site is SITE.
"""
