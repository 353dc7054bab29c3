"""What every part of headway agrees on: tasks, data, files, errors. numpy only."""
