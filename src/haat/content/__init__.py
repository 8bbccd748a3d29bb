"""The portal's long texts in every language: help, announcements, pages, and the words of mails."""
