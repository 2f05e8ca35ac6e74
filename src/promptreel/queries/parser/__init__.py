"""Parser of the text that a person typed.

``parse`` is its entry. ``cleaning`` removes the markup and debris around a query, ``flags`` the settings typed into it,
by the ``grammar`` of flags and their ``flag_names``. ``patterns`` holds the regular expressions that these share.
"""
