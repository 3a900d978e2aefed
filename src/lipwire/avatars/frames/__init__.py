"""An avatar's frames: found, decoded, resampled to 25 a second, kept in memory."""
