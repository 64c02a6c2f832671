"""What an installation may ask before a wave opens: a Prometheus, a webhook, a command."""
