"""From queue/ to done/: slots, runs, artifacts, result.json.

runner is the daemon, node what it is to others, bell what wakes it, front who judges them, fit which jobs it takes,
drain its end, pause a while without jobs, shortage what it outlives, owner whoever comes before jobs, priority how
far, withdrawal what waits and is not to run. slot is a place for one job, installs the places where packages are
installed, resources what all jobs are run with, report what is told of all that. worker is one run, and says whose
fault a failure is; execution is its machines. attempt is a try at running a job, allocation what the job gets,
artifacts what is taken of it, by artifact_reader in a jail, environment what its machine was, publish what is written
of it. local runs a job without a server, again one that has a result, on what it ran on, diffoscope says in what two
artifacts differ; shell opens a machine for a person.

It knows no FTP. What a job did is never our fault, and what we did never its failure.
"""
