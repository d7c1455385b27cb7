"""The pages of the service: server-rendered, vendored scripts, no build step.

    views        what a page shows, read from the workspace
    pages        its route
    watched_run  a run while it works, for all who look at it
    answers      a model's answer, line by line
    session      who looks at it

Vendored in `static/`: htmx 2.0.11 (0BSD), uPlot 1.6.32 (MIT).
"""
