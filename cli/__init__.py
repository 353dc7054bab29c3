"""The `headway` command: thin, one file per verb. The only part that talks to the user."""
