"""What devices with the Mender client ask for and tell, in our words."""
