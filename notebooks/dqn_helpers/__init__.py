"""Helpers of the lesson: what only draws, plays, formats, checks and saves.

They know neither torch nor gym nor anything of the lesson; they take plain numbers,
arrays and functions. To be imported they need the standard library and IPython alone.
"""
