"""The served model and everything on the request path: tuning, repository, Triton, gateway, traffic."""
