"""What a measurement found, for people: as Markdown for a pull request, as one HTML page with plots."""
