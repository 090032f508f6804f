"""Around the user's loop: processes, device, data, steps, what is written down."""
