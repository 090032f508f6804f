"""What does a project of one's own begin with?"""
