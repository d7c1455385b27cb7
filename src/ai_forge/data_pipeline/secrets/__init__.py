"""Secrets in code and prose: found, and masked before anything is learned."""
