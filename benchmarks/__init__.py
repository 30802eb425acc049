"""What the code's speed is, measured; nobody needs it to use the library."""
