"""Jobs behind `job_queue` and `worker`: their table, the kinds that there are, and the process that does one.

store     the table: what a job is to do, how far it is, what is wanted of it
kinds     what can be a job: its steps and what does each
runs      the kinds that there always are: a run taken through its stages, a deployment
process   the process that does a job's steps, started by the worker
handle    that process as the worker sees it
"""
