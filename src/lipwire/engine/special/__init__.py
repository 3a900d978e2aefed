"""Networks specialised for one avatar and this processor: bfloat16 on its matrix units."""
