"""The character and the room in Blender (``bpy``)."""
