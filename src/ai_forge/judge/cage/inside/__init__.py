"""What runs behind the walls: the standard library only, for nothing else is to be seen there.

`worker` is started once and forks for every job; `confine` shuts each fork into a room of its own; `grading` is the code
under test on one side and its test on the other; `plain` is what the two may say to each other.
"""
