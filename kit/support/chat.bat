@echo off
rem Talk with the model in this folder, without a network.
rem The arguments are those of `issun chat`, such as --no-history.
setlocal
set "start=%~dp0support\start.py"
set "python="
for /f "tokens=3 delims=-" %%v in ('dir /b /ad "%~dp0wheels\windows-*" 2^>nul') do call :try py -%%v
call :try python
if not defined python goto missing
%python% -I "%start%" %*
set "code=%errorlevel%"
if not "%code%"=="0" pause
exit /b %code%

:try
if defined python goto :eof
%* -I "%start%" --fits <nul >nul 2>nul
if "%errorlevel%"=="0" set "python=%*"
goto :eof

:missing
for /f "tokens=2 delims=:" %%c in ('chcp') do set "page=%%c"
chcp 65001 >nul
type "%~dp0support\python-needed.txt"
chcp %page% >nul
pause
exit /b 2
