"""This project's own book-keeping: what five reports measured and concluded, and what the experiments say of it."""
