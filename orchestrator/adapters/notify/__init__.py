"""Where messages to people go: mail, chat and pagers through Apprise, and signed webhooks."""
