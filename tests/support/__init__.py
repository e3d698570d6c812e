"""What tests stand on: real servers."""
