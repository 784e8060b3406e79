"""Where the truth is told: outer ledgers that follow this one."""
