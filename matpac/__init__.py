"""matpac."""
