"""From queue/ to done/: slots, runs, artifacts, result.json.

runner is the daemon, slot a place for one job, worker one run. attempt is a try at running a job, allocation what the
job gets, artifacts what is taken of it, by artifact_reader in a jail, publish what is written of it. local runs a job
without a server, shell opens its machine for a person.

It knows no FTP. What a job did is never our fault, and what we did never its failure.
"""
