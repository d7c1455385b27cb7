"""What the judge asks: held-out questions, the team's own, chats of a dataset, general texts."""
