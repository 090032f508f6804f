"""What is measured, and printed beside what others need for the same."""
