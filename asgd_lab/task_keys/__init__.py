"""The keys of tasks in a scenario: `scenario` adds facts and refusals to them, `tasks` computes what they say."""
