"""What a client can say: a module for each kind of command, and table, which has a row for each.

access is USER, PASS, AUTH, PBSZ and PROT; connections is PASV, EPSV, ABOR, NOOP and QUIT; listing is LIST, NLST, MLSD
and STAT; files is RNFR, RNTO, DELE, SIZE, MDTM and MFMT; store is STOR, APPE and ALLO; site is SITE.
"""
