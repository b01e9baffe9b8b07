"""What goes to the Hub: files, their card, and where they are from."""
