"""`kubectl trimtab`, and the same as `trimtab fleet`: look at ModelFleets and ask things of them."""
