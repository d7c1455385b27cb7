"""The pages of the service: server-rendered, vendored scripts, no build step."""
