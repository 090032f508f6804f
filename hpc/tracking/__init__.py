"""What is shown while a run trains, and what is kept of it?"""
