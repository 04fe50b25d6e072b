"""How something is learned step by step: the loop, when to stop it, and how it goes on after a stop."""
