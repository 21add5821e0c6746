"""Edgejoule: which detector, at which precision, on which board, and can the number be trusted?"""

__version__ = "0.1.0"
