"""A whole run: from the first word between ranks to the last checkpoint."""
