#!/bin/sh -e
# packages: texlive-latex-base
printf '\\documentclass{article}\\begin{document}hello\\end{document}\n' >a.tex
pdflatex -interaction=batchmode a.tex && file a.pdf | grep 'PDF document'
