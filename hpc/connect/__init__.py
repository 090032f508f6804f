"""How do ranks find each other, and talk?"""
