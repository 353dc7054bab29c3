"""What `headway doctor` looks at: facts of the machine, and one file per subject that judges them."""
