"""The stages in order: a repository in, a judged and exported model out. CLI, service and guardian call this one."""
