"""Tables and figures -> one HTML page, and the end of every sweep."""
