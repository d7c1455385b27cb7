"""The Repo Guardian: watches a repository and keeps its model fresh; what agents drive it with."""
