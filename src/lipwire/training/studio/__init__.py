"""The studio: a three-dimensional character, made of mathematics and rendered with Blender's Cycles.

``face`` and ``motion`` are plain numpy: the skin as a function of six mouth controls, and how the
head moves. ``character`` builds the scene out of them, ``render`` makes the pictures. Only the last
two need Blender (``bpy``), and nothing of this is needed to run an avatar.
"""
