"""What a way of tuning gives and costs: accuracy, bytes that are kept and moved, and how fast the exported model answers."""
