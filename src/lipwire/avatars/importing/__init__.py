"""What other programs of the family leave behind, read and made a package.

A *source* is a folder, an archive, or an entry in a configuration file (``sources``, ``archives``,
``configs``). It is *examined*: frames, rectangles and networks are looked for, and what is found
and assumed is noted (``examining``). Then a package is *written* from it (``writing``). A source is
only read.
"""
