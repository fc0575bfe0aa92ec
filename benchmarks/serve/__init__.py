"""The served model under load: replicas of several kinds behind an Envoy, and clients that keep them busy."""
