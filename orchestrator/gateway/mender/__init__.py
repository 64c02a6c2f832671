"""The protocol of the Mender client."""
