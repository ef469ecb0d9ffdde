"""What our servers share: uvicorn with bounds on connections, requests, bodies and silence.

uvicorn, because OpenEnv needs it already, it serves an object of this process, and h11, which reads
for it, refuses what is ambiguous (two lengths of one body). Of what it lacks, `protocols` adds a
deadline for a whole request and connections that make way. hypercorn's and waitress's time-outs
start anew with each byte; granian's does not, but it starts processes that would each load the
index.
"""
