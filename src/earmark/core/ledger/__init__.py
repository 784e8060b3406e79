"""What happened, and what is therefore true: events, commands, states, decisions, audits."""
