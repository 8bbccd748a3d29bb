"""Invoices and credit notes as people read them: labels, amounts in words, fonts and the page."""
